"""Names of files as a hostile or careless workflow may give them."""

from __future__ import annotations

from hypothesis import strategies as st

ODD = ("~", "C:", "\\", "NUL", "\0", "\n", " ", "\ud800", "\udcff", "%year%", "http:", "a" * 300, "视频", "..", "../..")


def odd_names(*pieces: str) -> st.SearchStrategy[str]:
    """Any text, or paths of odd parts and of these pieces, marked with folders of the host or not."""
    return st.text(max_size=20) | st.builds(
        "{}{}{}".format,
        st.sampled_from(["", "", "/", "./"]),
        st.lists(st.sampled_from(pieces) | st.sampled_from(ODD), max_size=4).map("/".join),
        st.sampled_from(["", " [output]", " [input]", "[input]", " [temp]", "/"]),
    )

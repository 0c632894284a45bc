"""One thin file a node: what it asks for, what it refuses, one call down."""

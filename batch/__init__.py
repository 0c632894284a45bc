"""Many clips, on one machine or on a Ray cluster: a table of jobs, each run through a workflow by a ComfyUI.

Nothing of this runs inside ComfyUI. From the ground up: `comfyui` drives one ComfyUI over HTTP; `jobs` reads tables;
`workflow` puts a job into a workflow; `results` is the folder that a run leaves; `worker` runs one job after the other
on a ComfyUI of its own; `cluster` connects to Ray and `pool` is the loop over its actors; `commands` is what a
person calls.
"""

"""Decodes a video for peers that cannot, as users pipe FFmpeg: one line of JSON with the size, then RGB frames.

At the end the processor time in seconds goes to standard error.
"""

import json
import os
import sys
import time

import av

with av.open(sys.argv[1]) as container:
    stream = container.streams.video[0]
    stream.thread_type = "AUTO"
    out = sys.stdout.buffer
    try:
        out.write((json.dumps({"width": stream.width, "height": stream.height}) + "\n").encode())
        for frame in container.decode(stream):
            out.write(frame.to_ndarray(format="rgb24").tobytes())
        out.flush()
    except BrokenPipeError:  # the peer stopped early
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
sys.stderr.write(f"{time.process_time()}\n")

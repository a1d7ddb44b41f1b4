#!/usr/bin/env python3
"""The second module of a chain: reads what the first one left, shrinks the image, leaves its own.

    ION=http://127.0.0.1:8080 SHARED_SECRET=… ./resize.py

The image is a binary PPM, so that no library is needed to read it.
"""

import os

import requests

ion = os.environ["ION"]
session = requests.Session()
session.headers["secret"] = os.environ["SHARED_SECRET"]


def ask(method, path, **arguments):
    answer = session.request(method, ion + path, timeout=30, **arguments)
    answer.raise_for_status()
    return answer


def shrink(ppm, by):
    """Every by-th pixel of every by-th row."""
    kind, width, height, most = ppm.split(maxsplit=4)[:4]
    width, height = int(width), int(height)
    pixels = ppm[-3 * width * height:]
    across, down = width // by, height // by
    small = b"".join(
        pixels[3 * (y * by * width + x * by):][:3] for y in range(down) for x in range(across)
    )
    return b"%s %d %d %s\n" % (kind, across, down, most) + small


# What the parent stored as a location comes as the name that /parent/blob wants.
meta = ask("GET", "/parent/meta").json()
image = ask("GET", "/parent/blob", params={"res": meta["image"]}).content
small = shrink(image, meta["shrink"])
location = ask("PUT", "/self/blob", params={"res": "small.ppm"}, data=small).text
ask("PUT", "/self/meta", json={"image": location, "bytes": len(small)})
event = {"eventType": "image_resize_complete", "image": location}
ask("POST", "/events", json=event, headers={"Idempotency-Key": "resized"})

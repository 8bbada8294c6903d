"""The capture child: owns a camera, so that a driver which hangs holds up nothing but this process.

``python -m engine.worker --capture``. One question; then pictures until its input closes or says ``stop``::

    list                                   -> cameras  cameras: [{id, name}]; then it ends
    open     kind: "camera", id            -> opened   name, width, height, rate (a second, 0: not told)
             kind: "clip", id (its path)      picture  number, width, height, source_size   [JPEG, RGB of a preview]
                                              failed   code, message; then it ends

A clip is a folder of JPEG pictures or one animated picture; it is given at its own rate, over and over. ``number``
counts what the source gave: what was passed over because the other end was slow is missing from it, never queued.
"""

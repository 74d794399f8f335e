"""The line protocol by which the programs of this folder serve a codec to audiorl.

Imports nothing of audiorl, and is imported first: from then on what libraries print goes to the
standard error, and answers alone go out. The requests stand in audiorl/models/codec/served.py.
"""

import json
import os
import sys

answers = os.fdopen(os.dup(1), "w")
os.dup2(2, 1)

from safetensors.torch import load_file, save_file  # noqa: E402

READ = 16000  # Hz, of the waves that are given


def serve(codec):
    """Answer each request by the method of its name, until the standard input ends.

    Methods take the tensors of the request and return facts and tensors.
    """
    for line in sys.stdin:
        request = json.loads(line)
        try:
            given = load_file(request["file"]) if "file" in request else {}
            facts, found = getattr(codec, request["op"])(given)
            if found:
                save_file({n: part.cpu().contiguous() for n, part in found.items()}, request["out"])
            answer = {"ok": True, **facts}
        except Exception as error:
            answer = {"ok": False, "error": f"{type(error).__name__}: {error}"}
        answers.write(json.dumps(answer) + "\n")
        answers.flush()

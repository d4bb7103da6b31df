"""What `lorafit/runtimes/plain.py` does, for one folder after another: its libraries are imported once.

Run as a script: each line of the input is `[FOLDER, TEXTS]` in JSON, each line of the output `{"logits": …}` or
`{"error": …}`. Every folder is opened in a process of its own, forked before anything was opened; nothing of lorafit's
package is imported. Modules that opening would import, peft and those of the usual architectures, are imported before.
`tests/runs/test_saving.py` proves saved folders in processes that are started anew.
"""

import json
import os
import sys
import traceback
from importlib import import_module
from pathlib import Path

sys.path.append(sys.argv[1])

import plain

for name in ("peft", "transformers.models.distilbert.modeling_distilbert", "transformers.models.bert.modeling_bert"):
    import_module(name)

for line in sys.stdin:
    if child := os.fork():
        status = os.waitpid(child, 0)[1]
        if status:
            sys.stdout.write(json.dumps({"error": f"the process ended with status {status}"}) + "\n")
            sys.stdout.flush()
        continue
    folder, texts = json.loads(line)
    try:
        answer = {"logits": plain.compute_plain_logits(Path(folder), texts)}
    except Exception:  # noqa: BLE001 - whatever it is, the test is told
        answer = {"error": traceback.format_exc()}
    sys.stdout.write(json.dumps(answer) + "\n")
    sys.stdout.flush()
    os._exit(0)

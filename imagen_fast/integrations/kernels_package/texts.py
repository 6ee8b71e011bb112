"""The files of a kernel repository that are not code of this package."""

import json

from imagen_fast.ops import modules

NAME = "imagen-fast"
# By its convention a version 0 is one whose interface may change yet.
VERSION = 0
# Others would find the reference only.
BACKENDS = ("cpu", "cuda")

BUILD = f"""\
[general]
name = "{NAME}"
version = {VERSION}
edition = 5
license = "Apache-2.0"
backends = {json.dumps(BACKENDS)}

[torch-noarch]
pyext = ["py", "json"]
"""

OPERATORS = '''\
"""The names by which PyTorch knows the operators of this build."""

from ._ops import ops as registered

NAMESPACE = registered.name
'''

CARD = f"""\
---
license: apache-2.0
library_name: kernels
tags:
- kernels
- triton
- vision
- attention
---

# {NAME}

Operations for learning image backbones from unlabelled pictures: attention among patches of which every image
hides its own set, attention of pixels in generation order, and losses on pixels that hold neither logits nor
the patches of a target in memory. Triton kernels, forward and backward, on CUDA GPUs from compute capability
8.0 on; PyTorch elsewhere. They work under autograd, autocast and `torch.compile(fullgraph=True)`, and need
Python 3.11, PyTorch 2.11 and, on a GPU, Triton 3.6.

```python
import torch
from kernels import get_kernel

ops = get_kernel("ORG/{NAME}", version={VERSION}, trust_remote_code=True)

q, k, v = torch.randn(3, 8, 196, 12, 64, device="cuda", dtype=torch.bfloat16).unbind()  # [B, N, H, D]
hidden = torch.rand(8, 196, device="cuda") < 0.75
out = ops.masked_patch_attention(q, k, v, ops.Visible.in_place(hidden))
```

Each is an `nn.Module` of `ops.modules` too, and a layer of `ops.layers`, which `kernelize` can put in place
of a module's forward: {", ".join(f"`{name}`" for name in modules.__all__)}.
A layer reads the options that its class annotates from the module that it serves.

The package imagen_fast, from whose source this is written, has compiled CPU kernels as well.
"""


def operators_namespace(identity: str) -> str:
    return f"import torch\n\nops = torch.ops.{identity}\n"


def metadata(identity: str, backend: str, digests: dict[str, str]) -> str:
    """Args: digests: the SHA-256 of each file, in base64."""
    return json.dumps(
        {
            "name": NAME,
            "id": identity,
            "version": VERSION,
            "kernels-minver": "0.14.0",
            "license": "Apache-2.0",
            "python-depends": [],
            "kernel-depends": [],
            "backend": {"type": backend},
            "digest": {"algorithm": "sha256", "files": digests},
        },
        indent=2,
    )

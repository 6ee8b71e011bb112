"""The operations as a kernel repository, loaded from a folder by Hugging Face's own library."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import torch

from imagen_fast import ops
from imagen_fast.errors import InvalidInput
from imagen_fast.integrations.kernels_package import __main__, write

kernels = pytest.importorskip("kernels")
rust = pytest.importorskip("kernels._rust")

VARIANTS = ("torch-cpu", "torch-cuda")


@pytest.fixture(scope="module")
def repository(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("kernels") / "imagen-fast"
    write(folder)
    return folder


def files(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and path.suffix != ".pyc"
    }


@pytest.mark.parametrize("backend", [[], ["triton"]], ids=["without a GPU", "Triton's interpreter"])
def test_it_works_where_imagen_fast_is_not_installed(repository, backend):
    environment = {**os.environ, "TRITON_INTERPRET": str(len(backend)), "PYTHONDONTWRITEBYTECODE": "1"}
    command = [sys.executable, "-P", Path(__file__).with_name("kernel_alone.py"), repository, *backend]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_builds_live_beside_each_other_and_beside_the_package(repository):
    machine, cpu = (kernels.get_local_kernel(repository, backend=backend) for backend in (None, "cpu"))
    names = {x.metadata.id for x in kernels.get_loaded_kernels()}
    assert len(names) == 1 + (torch.version.cuda is not None)
    q, k, v = torch.randn(3, 2, 12, 2, 16).unbind()
    hidden = torch.arange(24).view(2, 12) % 3 == 0
    expected = ops.masked_patch_attention(q, k, v, ops.Visible.in_place(hidden), backend="reference")
    for other in (machine, cpu):
        assert other.Visible is not ops.Visible
        torch.testing.assert_close(
            other.masked_patch_attention(q, k, v, other.Visible.in_place(hidden)), expected
        )
    assert all(list(getattr(torch.ops, name)) for name in ("imagen_fast", *names))


def test_build_toml_has_what_it_must_have(repository):
    build = tomllib.loads((repository / "build.toml").read_text())
    assert build["general"].keys() >= {"name", "version", "license", "backends"}
    assert "torch-noarch" in build
    general = rust.Build.open(repository).general
    assert [f"torch-{str(backend).lower()}" for backend in general.backends] == list(VARIANTS)


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_build_is_the_source_with_its_metadata(repository, variant):
    folder = repository / "build" / variant
    source, build = files(repository / "torch-ext" / "imagen_fast"), files(folder)
    assert {name: build[name] for name in source} == source
    assert build.keys() - source.keys() == {"_ops.py", "metadata.json"}
    metadata = rust.Metadata.read_from_file(folder / "metadata.json")
    assert str(metadata.name) == "imagen-fast"
    assert metadata.license == "Apache-2.0"
    assert f"torch-{str(metadata.backend.backend_type).lower()}" == variant
    assert metadata.id.isidentifier()
    assert f"torch.ops.{metadata.id}\n" in build["_ops.py"].decode()


def test_the_digest_of_a_build_is_that_of_its_files(repository, tmp_path):
    write(tmp_path / "again")
    for variant in VARIANTS:
        folder = tmp_path / "again" / "build" / variant
        digest = rust.Metadata.read_from_file(folder / "metadata.json").digest
        digest.validate(rust.Digest.hash_variant(rust.DigestAlgorithm.SHA256, folder))
    assert files(tmp_path / "again") == files(repository)


def test_only_pytorch_triton_and_the_standard_library_are_imported(repository):
    allowed = {*sys.stdlib_module_names, "torch", "triton"}
    for name, text in files(repository / "torch-ext").items():
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.Import):
                assert {alias.name.split(".")[0] for alias in node.names} <= allowed, name
            elif isinstance(node, ast.ImportFrom) and not node.level:
                assert node.module.split(".")[0] in allowed, name


def test_the_card_names_every_layer(repository):
    card = (repository / "README.md").read_text()
    assert card.startswith("---\nlicense: apache-2.0\n")
    assert all(f"`{name}`" in card for name in ops.modules.__all__)


def test_a_folder_with_something_in_it_is_refused(tmp_path, monkeypatch, capsys):
    (tmp_path / "mine").write_text("kept")
    for folder in (tmp_path, tmp_path / "mine"):
        with pytest.raises(InvalidInput, match="new or empty folder"):
            write(folder)
    monkeypatch.setattr(sys, "argv", ["kernels_package", str(tmp_path)])
    with pytest.raises(SystemExit) as end:
        __main__.main()
    assert end.value.code == 2
    assert "new or empty folder" in capsys.readouterr().err
    assert (tmp_path / "mine").read_text() == "kept"

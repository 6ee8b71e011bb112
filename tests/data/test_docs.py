"""The examples of docs/data.md, run one after another where the data that they name lie."""

import re
from pathlib import Path

import pytest

PAGE = Path(__file__).parents[2] / "docs" / "data.md"


@pytest.mark.filterwarnings("ignore")
def test_the_examples_of_the_page_run(folder, shards, tmp_path, monkeypatch, capsys):
    datasets = pytest.importorskip("datasets")
    pytest.importorskip("transformers")
    monkeypatch.chdir(tmp_path)
    folder.rename("birds")
    for number in range(2):
        (shards / f"set-{number:03}.tar").rename(f"train-{number:03}.tar")
    files = sorted(str(path) for path in Path("birds").rglob("*") if path.is_file())
    features = datasets.Features({"image": datasets.Image(), "label": datasets.Value("int64")})
    loaded = datasets.Dataset.from_dict({"image": files, "label": [0] * len(files)}, features=features)
    loaded.save_to_disk("saved")
    known = {"loaded": loaded}
    capsys.readouterr()
    for example in re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL):
        exec(compile(example, str(PAGE), "exec"), known)
    assert [len(known[name]) for name in ("folder", "shards", "dataset", "columns")] == [20, 10, 20, 20]
    assert known["state"]["step"] == 10
    assert known["tokens"].shape == (4, 4, 768)
    assert re.fullmatch(r"\d+% of the time waiting for data; unusable: \[\]\n", capsys.readouterr().out)
    with known["Trainer"].get_train_dataloader(None) as loader:
        assert next(iter(loader))["pixel_values"].shape == (4, 3, 32, 32)

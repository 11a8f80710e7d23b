"""Nearest images: against brute force, ties and copies, the index, the sheet and the two commands."""

import json
import shutil

import numpy as np
import pytest
from PIL import Image

from keras_ssl import embedding
from keras_ssl.cli import main
from keras_ssl.embedding import search as search_file

SMALL = {"image_size": 16, "batch_size": 4, "save_every": 8}


def brute_force(bank, queries, k, exclude):
    """One query, one row at a time, in float64."""
    cosines, rows = [], []
    for number, query in enumerate(queries.astype(np.float64)):
        value = []
        for row, vector in enumerate(bank.astype(np.float64)):
            length = np.sqrt(vector @ vector) * np.sqrt(query @ query)
            cosine = vector @ query / length if length else 0.0
            value.append((-cosine, row))
        near = [pair for pair in sorted(value) if pair[1] != exclude[number]][:k]
        cosines.append([-a for a, _ in near])
        rows.append([b for _, b in near])
    return np.array(cosines), np.array(rows)


@pytest.mark.parametrize("block", [7, 50, 1000])
@pytest.mark.parametrize("dtype", ["float32", "float16"])
@pytest.mark.parametrize("k", [1, 5, 49])
def test_against_brute_force(monkeypatch, block, dtype, k):
    monkeypatch.setattr(search_file, "_BLOCK_ENTRIES", 3 * block)
    generator = np.random.default_rng(0)
    bank = generator.normal(size=(50, 3)).astype(dtype)
    queries = np.concatenate([bank[[4, 30]], generator.normal(size=(2, 3))]).astype(np.float32)
    exclude = np.array([4, -1, -1, 0])
    cosine, rows = embedding.find_neighbors(bank, queries, k=k, exclude=exclude)
    wanted = brute_force(bank, queries, k, exclude)
    np.testing.assert_allclose(cosine, wanted[0], atol=1e-5)
    np.testing.assert_array_equal(rows, wanted[1])


@pytest.mark.parametrize("block", [2, 100])
def test_equal_ones_are_in_the_order_of_the_bank(monkeypatch, block):
    """Rows 1, 3, 4 and 5 point the same way; lengths do not count, and a zero is at a right angle to all."""
    monkeypatch.setattr(search_file, "_BLOCK_ENTRIES", 2 * block)
    bank = np.array([[0, 1], [2, 0], [0, 0], [1, 0], [4, 0], [8, 0], [-1, 0]], np.float32)
    cosine, rows = embedding.find_neighbors(bank, np.array([[3.0, 0]]), k=3)
    assert rows.tolist() == [[1, 3, 4]] and cosine.tolist() == [[1, 1, 1]]
    cosine, rows = embedding.find_neighbors(bank, np.array([[3.0, 0]]), k=9, exclude=np.array([1]))
    assert rows.tolist() == [[3, 4, 5, 0, 2, 6]] and cosine.tolist() == [[1, 1, 1, 0, 0, -1]]


def test_what_does_not_go_together():
    with pytest.raises(ValueError, match=r"of one dim. Received: shapes \(4, 3\) and \(1, 2\)"):
        embedding.find_neighbors(np.ones((4, 3)), np.ones((1, 2)), k=1)
    with pytest.raises(ValueError, match="`k` must be at least 1. Received: k=0"):
        embedding.find_neighbors(np.ones((4, 3)), np.ones((1, 3)), k=0)


def test_copies_are_found_and_the_query_itself_is_not(folder, encoder, tmp_path):
    shutil.copy(folder / "cats" / "03.png", folder / "dogs" / "copy.png")
    out = tmp_path / "f.npz"
    embedding.embed_folder(encoder, folder, out, **SMALL)
    found = embedding.read_features(out)
    (query,) = embedding.embed_queries(encoder, found, [folder / "dogs" / ".." / "cats" / "03.png"])
    assert found.paths[query.own] == "cats/03.png"
    np.testing.assert_allclose(query.features, found.features[query.own], rtol=1e-6)
    exclude = np.array([query.own])
    for without, first in ((exclude, ["dogs/copy.png"]), (None, ["cats/03.png", "dogs/copy.png"])):
        cosine, rows = embedding.find_neighbors(
            found.features, query.features[None], k=4, exclude=without
        )
        assert found.paths[rows[0, : len(first)]].tolist() == first
        np.testing.assert_allclose(cosine[0, : len(first)], 1.0, atol=1e-6)
    elsewhere = tmp_path / "elsewhere.png"
    shutil.copy(folder / "cats" / "03.png", elsewhere)
    assert embedding.embed_queries(encoder, found, [elsewhere])[0].own == -1
    shutil.move(folder, tmp_path / "moved")
    path = tmp_path / "moved" / "cats" / "03.png"
    assert embedding.embed_queries(encoder, found, [path])[0].own == -1
    moved = embedding.embed_queries(encoder, found, [path], data=str(tmp_path / "moved"))
    assert moved[0].own == query.own


def test_the_sheet_shows_the_query_and_what_was_found(folder, encoder, tmp_path):
    out = tmp_path / "f.npz"
    embedding.embed_folder(encoder, folder, out, crop_ratio=1.0, **SMALL)
    found = embedding.read_features(out)
    queries = embedding.embed_queries(encoder, found, [folder / "cats" / "03.png"])
    rows, cosine = np.array([[12, 7]]), np.array([[0.5, 0.25]])
    sheet = embedding.search_sheet(found, queries, cosine, rows, size=24)
    assert sheet.shape == (24 + 14 + 4, 3 * (24 + 4), 3) and sheet.dtype == np.uint8
    for column, name in enumerate(("cats/03.png", "dogs/12.png", "cats/07.png")):
        shown = sheet[2:26, column * 28 + 2 : column * 28 + 26]
        np.testing.assert_array_equal(shown, np.asarray(Image.open(folder / name)))
    below = sheet[26:, 28:]
    assert (below < 128).any()  # the number is written there
    (folder / "dogs" / "99.png").write_bytes(b"new")
    with pytest.raises(ValueError, match="which has changed since"):
        embedding.search_sheet(found, queries, cosine, rows)


def test_the_index_finds_what_the_exact_search_finds(tmp_path):
    faiss = pytest.importorskip("faiss", reason="faiss is not installed: keras_ssl[search]")
    generator = np.random.default_rng(0)
    centers = generator.normal(size=(40, 24))
    bank = (
        centers[generator.integers(0, 40, 4000)] + 0.5 * generator.normal(size=(4000, 24))
    ).astype(np.float32)
    numbers = np.arange(len(bank))
    found = embedding.Features(bank, numbers.astype(str), numbers, None, {"data": "x"})
    index = embedding.build_index(found, tmp_path / "f.npz")
    queries, own = bank[::40], numbers[::40]
    cosine, rows = index.search(queries, k=10, exclude=own)
    exact_cosine, exact = embedding.find_neighbors(bank, queries, k=10, exclude=own)
    recall = np.mean([len(set(a) & set(b)) / 10 for a, b in zip(rows, exact, strict=True)])
    assert recall >= 0.95 and index.recall >= 0.95
    assert not (rows == own[:, None]).any()
    np.testing.assert_allclose(cosine[:, 0], exact_cosine[:, 0], atol=1e-5)
    stored = (tmp_path / "f.npz.faiss").stat().st_mtime_ns
    again = embedding.build_index(found, tmp_path / "f.npz")
    np.testing.assert_array_equal(again.search(queries, k=10, exclude=own)[1], rows)
    assert (tmp_path / "f.npz.faiss").stat().st_mtime_ns == stored
    other = embedding.Features(bank[:50], numbers[:50].astype(str), numbers[:50], None, {})
    assert embedding.build_index(other, tmp_path / "f.npz").search(queries, k=99)[1].shape[1] == 50
    assert faiss is not None


def test_without_faiss(tmp_path, monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "faiss", None)
    found = embedding.Features(
        np.ones((3, 2), np.float32), np.array(list("abc")), np.arange(3), None, {}
    )
    with pytest.raises(ImportError, match=r"pip install 'keras_ssl\[search\]'"):
        embedding.build_index(found, tmp_path / "f.npz")


def test_the_two_commands(folder, tmp_path, capsys):
    out, sheet = tmp_path / "f.npz", tmp_path / "sheet.png"
    embed = ["embed", str(folder), "--encoder", "simclr_rnmini_cifar10", "--out", str(out)]
    assert main([*embed, "--batch-size", "8"]) == 0
    printed = capsys.readouterr().out
    assert "21 of 21 images, 1 broken, " in printed and "images/s, 0s left" in printed
    assert "20 images; 1 left out, listed in" in printed
    query = str(folder / "cats" / "03.png")
    command = ["search", str(out), "--query", query, "--k", "3"]
    assert main([*command, "--out", str(sheet), "--json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    (result,) = answer["results"]
    assert answer["encoder"] == "simclr_rnmini_cifar10" and answer["images"] == 20
    assert [entry["rank"] for entry in result["neighbors"]] == [1, 2, 3]
    assert all(entry["path"] != "cats/03.png" for entry in result["neighbors"])
    assert {entry["class"] for entry in result["neighbors"]} <= {"cats", "dogs"}
    cosines = [entry["cosine"] for entry in result["neighbors"]]
    assert cosines == sorted(cosines, reverse=True)
    assert Image.open(sheet).size == (4 * (112 + 4), 112 + 14 + 4)
    assert main([*command, "--include-query"]) == 0
    assert "1  1.0000  cats/03.png  cats" in capsys.readouterr().out
    assert "images/s in all." in printed
    for wrong, message in (
        (["--out", "sheet.jpg"], "Expected a file ending in .png in --out. Received: sheet.jpg."),
        (["--encoder", "byol_rnmini_cifar10"], "an encoder with other weights; name the right one"),
        (["--query", str(out)], "Expected an image file as query. Received: "),
    ):
        with pytest.raises(SystemExit) as end:
            main([*command, *wrong])
        assert end.value.code == 2 and message in capsys.readouterr().err
    command = ["embed", str(folder), "--encoder", "simclr_rnmini_cifar10", "--out", "new.npz"]
    for wrong, message in (
        (["--threads", "0"], "Expected --threads of at least 1. Received: 0."),
        (["--crop-ratio", "3"], "`crop_ratio` must be in (0, 1]. Received: crop_ratio=3.0"),
    ):
        with pytest.raises(SystemExit) as end:
            main([*command, *wrong])
        assert end.value.code == 2 and message in capsys.readouterr().err

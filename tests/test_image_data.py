"""Folders of images, MNIST, and the training of image networks."""

import os
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from experiments import image_data, image_networks
from experiments.networks import metrics

SPLITS = {"train": 12, "test": 4}
DATA = Path(os.environ.get("LOCAPPROX_DATA", "/nowhere"))


@pytest.fixture
def folder(tmp_path):
    """Two classes of 16 × 16 images, red and blue with noise, and two files that are no images."""
    rng = np.random.default_rng(0)
    for split, count in SPLITS.items():
        for number, kind in enumerate(("blue", "red")):
            place = tmp_path / "mine" / split / kind
            place.mkdir(parents=True)
            for i in range(count):
                pixels = rng.integers(0, 60, (16, 16, 3), dtype=np.uint8)
                pixels[..., 2 - 2 * number] += 150
                Image.fromarray(pixels).save(place / f"{i:02}.png")
    (tmp_path / "mine" / "train" / "red" / "zz.png").write_bytes(b"no picture")
    (tmp_path / "mine" / "test" / "blue" / "zz.jpg").write_bytes(b"")
    return tmp_path / "mine"


def test_a_folder_is_read_and_unreadable_files_are_named_and_counted(folder, capsys):
    table = image_data.folder(folder)
    assert table.x_train.shape == (24, 3, 16, 16)
    assert table.class_names == ("blue", "red")
    assert table.y_test.tolist() == [0] * 4 + [1] * 4
    first = np.asarray(Image.open(folder / "train" / "blue" / "00.png"))
    np.testing.assert_allclose(table.x_train[0].permute(1, 2, 0).numpy(), first / 255, atol=1e-7)
    said = capsys.readouterr().out
    assert "2 unreadable files left out: test/blue/zz.jpg, train/red/zz.png" in said


def test_a_zip_is_read_like_the_folder(folder, tmp_path):
    archive = tmp_path / "mine.zip"
    with zipfile.ZipFile(archive, "w") as out:
        for file in folder.rglob("*.*"):
            out.write(file, file.relative_to(folder))
    assert torch.equal(image_data.folder(archive).x_train, image_data.folder(folder).x_train)


def test_folders_that_cannot_be_used(folder, tmp_path):
    with pytest.raises(FileNotFoundError, match="absent does not exist; give a folder"):
        image_data.folder(tmp_path / "absent")
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileNotFoundError, match="has no images in train/<class>/"):
        image_data.folder(tmp_path / "empty")
    Image.new("RGB", (8, 8)).save(folder / "train" / "red" / "small.png")
    with pytest.raises(ValueError, match=r"differ in size: image 0 is \(16, 16, 3\)"):
        image_data.folder(folder)


@pytest.mark.skipif(not (DATA / "mnist").is_dir(), reason="no $LOCAPPROX_DATA/mnist")
def test_mnist_is_split_into_8000_and_2000():
    table = image_data.mnist()
    assert table.x_train.shape == (8000, 1, 28, 28)
    assert table.x_test.shape == (2000, 1, 28, 28)
    assert table.y_train[:10].tolist() == [7, 2, 1, 0, 4, 1, 4, 9, 5, 9]  # as every MNIST tutorial shows
    assert table.x_train.aminmax() == (0, 1)
    assert len(table.x_explain) == 100


def test_a_network_learns_two_colours_and_its_cache_gives_the_same_bits(folder, tmp_path, capsys):
    table = image_data.folder(folder)
    training = replace(image_networks.RECIPES["cifar10"], epochs=6, batch=8, learning_rate=0.05)
    first = image_networks.trained(table, training, tmp_path / "cache")
    assert first.metrics["accuracy"] == 1
    again = image_networks.trained(table, training, tmp_path / "cache")
    assert all(torch.equal(a, b) for a, b in zip(first.network.parameters(), again.network.parameters(), strict=True))
    assert metrics(again.network, table) == first.metrics
    (path,) = (tmp_path / "cache").glob("*.npz")
    whole = path.read_bytes()
    for damaged in (b"", whole[:-100], whole[: len(whole) // 2]):
        path.write_bytes(damaged)
        again = image_networks.trained(table, training, tmp_path / "cache")
        assert again.sha256 == first.sha256
        assert path.read_bytes() == whole
    assert capsys.readouterr().out.count(f"{path} cannot be used (") == 3
    assert not first.network.training
    assert first.network(table.x_test).shape == (8, 1)  # of two classes the probability of the second


def test_a_folder_whose_images_change_is_other_data(folder):
    """Of the same names and sizes; files that are no images do not count."""
    path, first = folder / "train" / "red" / "zz.png", image_data.folder(folder).sha256
    (folder / "train" / "red" / "notes.txt").write_text("mine")
    assert image_data.folder(folder).sha256 == first
    path.write_bytes(b"no_picture")
    assert image_data.folder(folder).sha256 != first
    path.write_bytes(b"no picture")
    assert image_data.folder(folder).sha256 == first


def test_images_are_moved_and_mirrored_without_wrapping_round():
    rng, x = torch.Generator().manual_seed(0), torch.zeros(1, 3, 9, 9)
    x[..., 4, 3] = 1
    places = {tuple(image_networks.varied(x, rng)[0, 0].nonzero()[0].tolist()) for _ in range(600)}
    rows, columns = {r for r, _ in places}, {c for _, c in places}
    assert rows == set(range(1, 8))
    assert columns == set(range(9))  # 0 … 6, and mirrored 2 … 8
    corner = torch.zeros(1, 1, 9, 9)
    corner[..., 0, 0] = 1
    assert min(float(image_networks.varied(corner, rng).sum()) for _ in range(50)) == 0  # gone, not on the other side


def test_the_model_is_one_of_two():
    with pytest.raises(ValueError, match="model must be lenet or resnet"):
        image_networks.network("vgg", 3, 10)

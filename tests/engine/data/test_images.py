"""Folders of images: classes, pixels, sizes."""

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from app.contracts.facts import TensorSpec
from app.contracts.failure import SlimlineError
from app.contracts.preprocess import Preprocess
from worker.engine.data import check_dataset, open_dataset
from worker.engine.data.facts import IMAGES_NOTE, UNSCALED_NOTE

Pack = Callable[[dict[str, bytes]], Path]
Draw = Callable[..., bytes]
NCHW = TensorSpec(name="input", dtype="float", shape=["n", 3, 4, 6])
NHWC = TensorSpec(name="input", dtype="float", shape=["n", 4, 6, 3])


@pytest.mark.parametrize("root", ["", "photos/"])
def test_classes_are_the_folders_in_alphabetic_order(pack: Pack, png: Draw, root: str) -> None:
    members = {f"{root}dog/1.png": png((1, 1, 1)), f"{root}cat/2.jpg": png(kind="JPEG"), f"{root}cat/1.PNG": png()}
    path = pack({**members, "__MACOSX/cat/._1.png": b"x", f"{root}cat/.DS_Store": b"x"})
    facts = check_dataset(path)
    assert (facts.format, facts.samples, facts.classes, facts.label_max) == ("images", 3, ["cat", "dog"], 1)
    assert [array.model_dump() for array in facts.arrays] == [{"name": "x", "dtype": "uint8", "shape": [3, 4, 6, 3]}]
    assert facts.notes == [IMAGES_NOTE]
    with open_dataset(path) as dataset:
        (batch,) = dataset.batches([NCHW], 8)
    np.testing.assert_array_equal(batch.labels, [0, 0, 1])
    np.testing.assert_allclose(batch.feed["input"][0, :, 0, 0] * 255, [10, 20, 30], rtol=1e-6)
    np.testing.assert_allclose(batch.feed["input"][2], 1 / 255, rtol=1e-6)


def test_without_preprocess_the_model_decides(pack: Pack, png: Draw) -> None:
    path = pack({"a/1.png": png()})
    with open_dataset(path) as dataset:
        (floats,) = dataset.batches([NHWC], 1)
        (bytes_,) = dataset.batches([TensorSpec(name="i", dtype="uint8", shape=[1, 4, 6, 3])], 1)
    np.testing.assert_allclose(floats.feed["input"][0, 0, 0] * 255, [10, 20, 30], rtol=1e-6)
    np.testing.assert_array_equal(bytes_.feed["i"][0, 0, 0], [10, 20, 30])


def test_preprocess_is_obeyed(pack: Pack, png: Draw) -> None:
    how = Preprocess(channel_order="bgr", mean=[30, 20, 10], std=[2, 2, 2], resize=(2, 2))
    with open_dataset(pack({"a/1.png": png(), "b/1.png": png((12, 22, 32), (9, 5))}), how) as dataset:
        (batch,) = dataset.batches([TensorSpec(name="input", dtype="float", shape=["n", 3, 2, 2])], 4)
    np.testing.assert_allclose(batch.feed["input"][0], 0, atol=1e-6)
    np.testing.assert_allclose(batch.feed["input"][1], 1, atol=1e-6)


def test_mean_without_scale_is_pointed_out(pack: Pack, png: Draw) -> None:
    facts = check_dataset(pack({"a/1.png": png()}), Preprocess(mean=[0.485, 0.456, 0.406], std=[0.229, 0.224, 0.225]))
    assert facts.notes == [UNSCALED_NOTE]


def picture(image: Image.Image, kind: str = "PNG") -> bytes:
    packed = io.BytesIO()
    image.save(packed, kind)
    return packed.getvalue()


def test_grey_and_transparent_pictures_become_rgb(pack: Pack) -> None:
    modes = ("L", "RGBA", "P", "1", "CMYK")
    with open_dataset(pack({f"a/{mode}.tif": picture(Image.new(mode, (6, 4)), "TIFF") for mode in modes})) as dataset:
        (batch,) = dataset.batches([NCHW], 8)
    assert batch.feed["input"].shape == (5, 3, 4, 6)


def refusal_of(path: Path, how: Preprocess | None = None) -> tuple[str, str | None]:
    with pytest.raises(SlimlineError) as refusal:
        check_dataset(path, how)
    assert refusal.value.failure.hint
    return refusal.value.failure.code, refusal.value.failure.node


def test_images_of_different_sizes(pack: Pack, png: Draw) -> None:
    path = pack({"a/1.png": png(), "b/2.png": png(size=(8, 8))})
    assert refusal_of(path) == ("IMAGE_SIZES_DIFFER", "b/2.png")
    assert check_dataset(path, Preprocess(resize=(4, 4))).arrays[0].shape == [2, 4, 4, 3]


def test_images_of_another_size_than_the_model_takes(pack: Pack, png: Draw) -> None:
    with open_dataset(pack({"a/1.png": png(size=(8, 8))})) as dataset, pytest.raises(SlimlineError) as refusal:
        dataset.check_for([NCHW])
    assert refusal.value.failure.code == "DATA_SHAPE_MISMATCH"
    assert "resize" in refusal.value.failure.hint


@pytest.mark.parametrize("name", ["a/notes.txt", "a/b/c/1.png", "1.png"])
def test_members_that_are_no_images_of_a_class(pack: Pack, png: Draw, name: str) -> None:
    assert refusal_of(pack({"a/1.png": png(), name: png()})) == ("DATA_MEMBER_UNKNOWN", name)


def test_a_class_folder_without_images(pack: Pack, png: Draw) -> None:
    assert refusal_of(pack({"a/1.png": png(), "b/": b""})) == ("CLASS_EMPTY", "b")


@pytest.mark.parametrize("content", [b"", b"no picture", b"\x89PNG\r\n\x1a\n" + bytes(30)])
def test_broken_pictures(pack: Pack, png: Draw, content: bytes) -> None:
    assert refusal_of(pack({"a/1.png": png(), "a/2.png": content})) == ("IMAGE_BROKEN", "a/2.png")


def test_a_truncated_picture(pack: Pack, png: Draw) -> None:
    whole = png(size=(64, 64), kind="JPEG")
    assert refusal_of(pack({"a/1.jpg": whole, "a/2.jpg": whole[: len(whole) // 2]})) == ("IMAGE_BROKEN", "a/2.jpg")


def test_sixteen_bit_pictures(pack: Pack) -> None:
    deep = picture(Image.fromarray(np.full((4, 6), 60000, np.uint16)))
    assert refusal_of(pack({"a/1.png": deep})) == ("IMAGE_BROKEN", "a/1.png")


def test_a_picture_of_absurdly_many_pixels(pack: Pack) -> None:
    code, node = refusal_of(pack({"a/1.png": picture(Image.new("1", (20000, 20000)))}))
    assert (code in ("IMAGE_TOO_LARGE", "IMAGE_BROKEN"), node) == (True, "a/1.png")


def test_an_empty_archive(pack: Pack) -> None:
    assert refusal_of(pack({}))[0] == "DATASET_EMPTY"

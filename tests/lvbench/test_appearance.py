"""What a part looks like tells colours and textures apart, and forgets where they are."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from lvbench.appearance import appearance, centre, surroundings

SIZE = (48, 80)
EVERYWHERE = np.full(SIZE, 255, np.uint8)


def looks(picture: np.ndarray, mask: np.ndarray = EVERYWHERE) -> np.ndarray:
    return appearance(np.asarray(cv2.cvtColor(picture, cv2.COLOR_RGB2LAB), np.uint8), mask)


def texture(colour: tuple[int, int, int], seed: int = 0) -> np.ndarray:
    light = np.random.default_rng(seed).random((12, 20)).astype(np.float32)
    wide = cv2.resize(light, SIZE[::-1], interpolation=cv2.INTER_LINEAR)[..., None]
    return (wide * np.array(colour)).astype(np.uint8)


def test_a_row_has_length_1():
    row = looks(texture((200, 90, 40)))
    assert row.dtype == np.float32
    assert row.shape == (16 + 256 + 16,)
    assert np.linalg.norm(row) == pytest.approx(1, abs=1e-6)


def test_where_things_are_is_forgotten():
    red = texture((200, 90, 40))
    assert looks(red) @ looks(red[:, ::-1].copy()) > 0.99
    assert looks(red) @ looks(np.roll(red, 30, axis=1)) > 0.99


def test_another_colour_is_another_look():
    red, blue = looks(texture((200, 90, 40))), looks(texture((40, 90, 200)))
    assert red @ looks(texture((200, 90, 40), seed=1)) > red @ blue + 0.15


def test_another_texture_is_another_look():
    stripes = np.zeros((*SIZE, 3), np.uint8)
    stripes[:, ::8] = stripes[:, 1::8] = 200
    across = looks(stripes) @ looks(np.roll(stripes, 3, axis=1))
    along = np.zeros((*SIZE, 3), np.uint8)
    along[::8] = along[1::8] = 200
    assert looks(stripes) @ looks(along) < across - 0.1


def test_a_little_more_light_is_little_another_look_even_across_the_border_of_two_bins():
    dark, light = (np.full((*SIZE, 3), level, np.uint8) for level in (118, 120))
    lab = [np.asarray(cv2.cvtColor(shown, cv2.COLOR_RGB2LAB), np.uint8) for shown in (dark, light)]
    assert int(lab[0][0, 0, 0]) // 16 + 1 == int(lab[1][0, 0, 0]) // 16
    assert looks(dark) @ looks(light) > 0.85


def test_only_what_is_in_the_mask_counts():
    red, spoiled = texture((200, 90, 40)), texture((200, 90, 40))
    spoiled[:4] = spoiled[-4:] = 255
    assert np.allclose(looks(red, centre(SIZE)), looks(spoiled, centre(SIZE)))
    assert not np.allclose(looks(red, surroundings(SIZE)), looks(spoiled, surroundings(SIZE)))


def test_subject_and_surroundings_do_not_overlap():
    assert not (centre(SIZE) & surroundings(SIZE)).any()
    assert centre(SIZE).astype(bool).mean() == pytest.approx(1 / 4, abs=0.02)
    assert surroundings(SIZE).astype(bool).mean() == pytest.approx(1 - 9 / 16, abs=0.02)


@pytest.mark.parametrize("level", [0, 255])
def test_a_flat_picture_has_a_look(level):
    assert np.isfinite(looks(np.full((*SIZE, 3), level, np.uint8))).all()

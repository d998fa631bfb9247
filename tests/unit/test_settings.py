# Copyright (C) 2026 The anomalib-htdgm authors
# SPDX-License-Identifier: Apache-2.0

"""Settings out of their range are named, with what was given; presets may be changed by name."""

import math

import pytest

from anomalib_htdgm.models.htdgm.settings import PRESETS, Settings, choose_settings


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *((name, value) for name in ("k_shot", "tiles", "width", "num_members", "iterations") for value in (0, 1.5)),
        *((name, value) for name in ("memory_patches", "energy_cells", "votes_from") for value in (-1, 20.5, None)),
        *(("patch_fraction", value) for value in (0, 1.5, math.nan, "x", None)),
        *((name, value) for name in ("vote", "precision", "transformations", "standardize") for value in ("x", None)),
        *(("image_size", value) for value in (10, 64.5, "x")),
        *(("coarsest_size", value) for value in (10, 97, 25.5)),
        *(("scale_factor", value) for value in (1, 0.0, 0.9999, math.nan)),
    ],
    ids=str,
)
def test_a_setting_out_of_its_range_is_named(name: str, value: object) -> None:
    with pytest.raises(ValueError, match=f"^{name}: got ") as caught:
        Settings(**{name: value})
    assert repr(value) in str(caught.value)


@pytest.mark.parametrize(
    ("votes_from", "voting", "remembering"),
    [(0, [20, 26, 32], []), (20, [20, 26, 32], [20]), (27, [32], [20, 26]), (100, [32], [20, 26, 32])],
)
def test_coarse_scales_remember_and_fine_ones_vote(votes_from: int, voting: list[int], remembering: list[int]) -> None:
    settings = Settings(image_size=32, coarsest_size=20, votes_from=votes_from)
    assert settings.scale_sizes == [20, 26, 32]
    assert settings.voting_sizes == voting
    assert settings.remembered_sizes == remembering


def test_a_preset_is_changed_by_name() -> None:
    assert choose_settings("defects", {}) == Settings()
    chosen = choose_settings("semantic", {"iterations": 7})
    assert chosen.iterations == 7
    assert chosen.gist is PRESETS["semantic"].gist is True


@pytest.mark.parametrize(
    ("preset", "given", "message"),
    [
        ("whole", {}, "preset: got 'whole'; allowed are 'defects', 'semantic'"),
        ("defects", {"members": 2}, "settings: got 'members'; allowed are values of k_shot, .*num_members"),
        ("semantic", {"tiles": 2}, "tiles: got 2 for whole images"),
    ],
)
def test_what_there_is_not_is_named(preset: str, given: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=f"^{message}"):
        choose_settings(preset, given)


@pytest.mark.parametrize(("given", "what"), [({"k_shot": 3}, "'k_shot'"), ("k_shot", "'k_shot'"), (3, "3")])
def test_what_has_an_argument_of_its_own_is_no_setting(given: object, what: str) -> None:
    with pytest.raises(ValueError, match=f"^settings: got {what}; allowed are values of tiles, "):
        choose_settings("defects", given, k_shot=10)

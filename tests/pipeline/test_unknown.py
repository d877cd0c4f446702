"""Tiles with unknown pixels from a user's files to scores, in this process."""

from __future__ import annotations

import json
import math
from pathlib import Path

import geopandas
import numpy as np
import pandas as pd
import pytest
import shapely
import torch
from intake_files import NAMES, SIZE, place_of, write_footprints, write_pairs
from small_run import RECIPE, train_small
from tiny_dataset import CRS, P, make

from roofseg.baselines import baselines
from roofseg.core.files import write_json
from roofseg.core.images import UNKNOWN
from roofseg.core.weights import write_weights
from roofseg.cutting.find import find_tiles
from roofseg.evaluation.evaluate import evaluate
from roofseg.inference.torch_predictor import TorchPredictor
from roofseg.intake.bring_in import bring_in
from roofseg.intake.division import Division
from roofseg.metrics import COUNTS
from roofseg.models.roof_model import build_model
from roofseg.patches import read_patches
from roofseg.tiles.tile import read_tile_mask


@pytest.mark.whole
def test_from_files_with_nodata_and_areas_to_scores(tmp_path: Path) -> None:
    def holed(image: np.ndarray) -> np.ndarray:
        image[30:40, 50:90] = 0
        return image

    images, _ = write_pairs(tmp_path, change=holed, nodata=0)
    roofs = write_footprints(tmp_path / "roofs.gpkg")
    areas = [
        shapely.box(*(place_of(index) @ (-5, SIZE)), *(place_of(index) @ (70, 0)))
        for index in range(len(NAMES) - 1)  # nothing is known of f
    ]
    mapped = geopandas.GeoDataFrame(geometry=areas, crs=CRS).to_crs("EPSG:3857")
    mapped.to_file(tmp_path / "areas.gpkg")
    dataset = tmp_path / "city"
    bring_in(images, roofs, dataset, areas=tmp_path / "areas.gpkg", division=Division(), say=print)
    make(dataset, tmp_path / "patches", fraction=0)
    train, val = (read_patches(tmp_path / "patches" / split) for split in ("train", "val"))
    assert all(0.2 < (patch.mask == UNKNOWN).mean() < 0.5 for patch in (*train, *val))

    torch.manual_seed(1)
    start = build_model(RECIPE.architecture, RECIPE.encoder, dropout=0.0, patch_size=P)
    write_weights(tmp_path / "prior.safetensors", start.encoder.state_dict())
    run = train_small(
        tmp_path / "run",
        tmp_path / "prior.safetensors",
        tmp_path / "state",
        train_patches=train,
        val_patches=val,
        epochs=1,
        augmentation="medium",
    )
    assert all(math.isfinite(run.curve(name).iloc[0, -1]) for name in ("train/loss", "val/loss"))

    tiles = [tile for tile in find_tiles(dataset)[0] if tile.split == "val"]
    evaluate(
        TorchPredictor(run.trained.model, window=P),
        {"val": val},
        tiles={"val": tiles},
        predictions=tmp_path / "predictions",
        results=tmp_path / "results",
        batch_size=2,
    )
    table = pd.read_csv(tmp_path / "results" / "tiles.csv").set_index("split")
    (patch,), (tile,) = val, tiles
    assert table.loc["val", COUNTS].sum() == (patch.mask != UNKNOWN).sum()
    whole = read_tile_mask(tile.mask, tile.unknown)
    assert table.loc["val_full_tiles", COUNTS].sum() == (whole != UNKNOWN).sum()
    assert not table.loc["val"].isna().any()
    write_json(tmp_path / "floor.json", baselines(train, val))
    for path in (tmp_path / "floor.json", tmp_path / "results" / "scores.json"):
        assert "NaN" not in json.dumps(json.loads(path.read_text()))

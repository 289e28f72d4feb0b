# Copyright 2026 The ZoomDiff for Diffusers authors. Licensed under the Apache License, Version 2.0.
"""Units of a level that are no squares: the areas that sites or sectors serve."""

import numpy as np


class Zones:
    """
    The areas of a level whose units are no squares.

    Args:
        labels (`np.ndarray`): (H, W), which area serves each cell.
    """

    def __init__(self, labels: np.ndarray):
        self.labels = labels.astype(np.int32)
        self.names, first, self.index, self.cells = np.unique(
            self.labels, return_index=True, return_inverse=True, return_counts=True
        )
        self.index = self.index.reshape(labels.shape)
        self.first = np.zeros(labels.shape, bool)  # one cell of each area, whose value is that of the area
        self.first.flat[first] = True

    def centres(self, y: np.ndarray, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Mean position of the cells of each area."""
        rows, columns = np.indices(self.labels.shape)
        return tuple(
            np.bincount(self.index.ravel(), centres[places.ravel()]) / self.cells
            for centres, places in ((y, rows), (x, columns))
        )

    def polygons(self, y_edges: np.ndarray, x_edges: np.ndarray) -> np.ndarray:
        """Each area as a multipolygon along the edges of its cells."""
        import shapely
        from affine import Affine
        from rasterio.features import shapes

        height, width = self.labels.shape
        steps = (x_edges[-1] - x_edges[0]) / width, (y_edges[-1] - y_edges[0]) / height
        transform = Affine(steps[0], 0, x_edges[0], 0, steps[1], y_edges[0])
        found = sorted(shapes(self.index.astype(np.int32), transform=transform), key=lambda each: each[1])
        parts = shapely.orient_polygons(np.array([shapely.geometry.shape(outline) for outline, _ in found]))
        return shapely.multipolygons(parts, indices=np.array([index for _, index in found], dtype=np.int64))

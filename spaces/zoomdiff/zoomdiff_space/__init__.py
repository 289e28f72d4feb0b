# Copyright 2026 The ZoomDiff for Diffusers authors. Licensed under the Apache License, Version 2.0.
"""
What is behind the page: `tabs` with their `controls` and `events`, `areas` (inputs), `runs` (the model), `views`
(pictures), `storage` (files) and `limits`.
"""

"""Many enclaves at once; `cargo xtask cloud --scale N` does the same with more."""

from local_cloud import scale
from local_cloud.screen import Screen


def test_fifty_enclaves_deployed_and_destroyed_at_once_all_arrive(world):
    scale.run(world, 50, Screen())

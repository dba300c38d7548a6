"""A local Ray cluster of two nodes for as long as a script runs on it: `two_nodes.py SCRIPT ARGUMENTS`."""

from __future__ import annotations

import os
import runpy
import sys

import ray
from ray.cluster_utils import Cluster

node = {"num_cpus": 2, "object_store_memory": 100_000_000}
cluster = Cluster(initialize_head=True, head_node_args={**node, "include_dashboard": False})
cluster.add_node(**node)
os.environ["RAY_ADDRESS"] = cluster.address
sys.argv = sys.argv[1:]
try:
    runpy.run_path(sys.argv[0], run_name="__main__")
finally:
    ray.shutdown()  # a node that a driver is connected to is not removed
    cluster.shutdown()

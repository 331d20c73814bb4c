"""A Ray cluster of two nodes with one CPU each, in processes of this machine, for tests that kill the second node.

python tests/cases/two_nodes.py      prints {"address": ..., "raylets": [first, second]}; ends with its input
"""

import json
import sys

from ray.cluster_utils import Cluster

if __name__ == "__main__":
    node = {"num_cpus": 1, "object_store_memory": 100 * 2**20, "include_dashboard": False}
    cluster = Cluster(initialize_head=True, head_node_args=node)
    second = cluster.add_node(num_cpus=1, object_store_memory=100 * 2**20)
    cluster.wait_for_nodes()
    raylets = [each.all_processes["raylet"][0].process.pid for each in (cluster.head_node, second)]
    print(json.dumps({"address": cluster.address, "raylets": raylets}), flush=True)
    sys.stdin.read()
    cluster.shutdown()

# SPDX-License-Identifier: GPL-3.0-or-later
"""Run the AWS double: ``python -m sandbox.aws --port P --pricing-port Q --cluster NAME --region us-east-1``.

Prints ``ready`` when it serves; ends on SIGTERM or SIGINT.
"""

from __future__ import annotations

import argparse
import logging
import os
import signal
import threading

# moto reads this when its IAM backend is imported; without it the AWS managed policies that node roles need do not exist.
os.environ.setdefault("MOTO_IAM_LOAD_MANAGED_POLICIES", "true")
# EKS' own images are seeded; moto's thousands of others would only slow every start and reset.
os.environ.setdefault("MOTO_EC2_LOAD_DEFAULT_AMIS", "false")

from sandbox.aws.server import serve
from sandbox.aws.state import State


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m sandbox.aws", description="A local AWS for tests: moto plus EKS, quotas, capacity and prices.")
    parser.add_argument("--port", type=int, required=True, help="port of AWS_ENDPOINT_URL on 127.0.0.1")
    parser.add_argument("--pricing-port", type=int, help="port of AWS_ENDPOINT_URL_PRICING; the main port answers pricing too")
    parser.add_argument("--cluster", required=True, help="name of the EKS cluster to seed")
    parser.add_argument("--region", default="us-east-1")
    parser.add_argument("--cluster-endpoint", default="", help="what DescribeCluster shows as the cluster's endpoint, for identity checks")
    parser.add_argument("--settle-seconds", type=float, default=1.0, help="how long a node group or update stays in a transitional state")
    args = parser.parse_args()
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    servers = serve(State(args.cluster, args.region, args.cluster_endpoint, args.settle_seconds), [p for p in (args.port, args.pricing_port) if p])
    print("ready", flush=True)
    stop.wait()
    for server in servers:
        server.shutdown()


if __name__ == "__main__":
    main()

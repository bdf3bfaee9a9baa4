"""What is assumed of Ray's private parts."""

from __future__ import annotations

import os

import pytest

from mosld_bench.compat.ray import on_loopback
from tests.compat.assumption import assumed

pytestmark = pytest.mark.filterwarnings(
    "ignore::ResourceWarning", "ignore::DeprecationWarning", "ignore::FutureWarning"
)


def test_this_machine_goes_by_the_loopback_interface_while_that_is_asked_for() -> None:
    import ray

    with assumed("ray", "a machine's address is asked of get_node_ip_address, and no other where clusters are off"):
        from ray._private import services

        before = services.get_node_ip_address()
        with on_loopback(ray):
            assert services.get_node_ip_address() in {"127.0.0.1", "::1"}
            assert os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] == "0"
        assert services.get_node_ip_address() == before
        assert "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER" not in os.environ


def test_what_ray_prints_of_its_parts_goes_through_one_function() -> None:
    import inspect

    import ray

    with assumed("ray", "messages about dead processes are printed by print_to_stdstream of ray._private.worker"):
        assert "print_to_stdstream(" in inspect.getsource(ray._private.worker.listen_error_messages)

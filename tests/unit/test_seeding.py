"""Tests of the derivation of seeds."""

from hypothesis import assume, given
from hypothesis import strategies as st

from selfreward.seeding import seed_of

KEYS = st.tuples(st.integers(0, 2**31), st.integers(0, 99), st.text(max_size=8), st.text(max_size=8))


def test_seed_is_fixed_across_processes_and_machines() -> None:
    assert seed_of(0, 1, "responses", "p-1") == 3311655833284036419


@given(KEYS, KEYS)
def test_different_keys_give_distant_seeds(a: tuple[int, int, str, str], b: tuple[int, int, str, str]) -> None:
    assume(a != b and "\x1f" not in "".join([a[2], a[3], b[2], b[3]]))
    assert abs(seed_of(*a) - seed_of(*b)) > 10_000  # vLLM adds the index of the sample


@given(KEYS, st.integers(8, 62))
def test_bits_bound_the_seed(key: tuple[int, int, str, str], bits: int) -> None:
    assert 0 <= seed_of(*key, bits=bits) < 2**bits

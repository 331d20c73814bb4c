"""The cost of a run, estimated before it runs."""

from selfreward.plan.planning import Plan, plan
from selfreward.plan.text import render

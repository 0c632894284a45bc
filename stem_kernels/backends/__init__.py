"""Implementations of the one expensive part of expectation-maximisation; `choice` picks among them."""

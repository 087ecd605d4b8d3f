"""Snapshot -> Plan, pure: which revisions there are, how many replicas each gets, and what the status says."""

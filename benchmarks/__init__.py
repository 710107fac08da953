"""Measurements that anybody can repeat: each prints a table and writes JSON."""

"""Requests that were looked at: what clients send (``clients.txt``), and what each provider gets.

A provider's page has, under each name: ``> user, store`` what the caller is told was left out,
then the exact bytes; ``! seed`` alone: the field for which the call must go elsewhere.
"""

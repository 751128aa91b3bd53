"""The way from any older database to today's tables: one numbered file a step, run by Alembic.

Owns the steps and their order. A step that has been released is never edited; a new one follows it.
"""

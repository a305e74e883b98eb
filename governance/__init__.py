"""Should this call happen, where, when, again?"""

"""Files that other people's programs load, to ask a server: CVAT's native functions, FiftyOne's zoo source.

Each asks by `tessera.Client`, and imports the program it is for, which Tessera does not install.
"""

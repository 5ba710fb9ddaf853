"""Writers of data sets for training: LeRobot v3, WebDataset, LAPA lines and the reference
implementation's files, with selection and a data set card.

Each writer takes primitives (:class:`laps.export.items.ExportItem`) and a folder, which appears whole or not at all.
The same primitives and options give the same bytes, in whatever order the primitives come.
"""

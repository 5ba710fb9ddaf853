"""Every quality figure of the project in one run: ``python -m bench.quality``.

=================  ====================================================================================================
module             what it does
=================  ====================================================================================================
``recordings``     a recording as methods see it: tracks, flow and pictures, and nothing of its truth
``scenes``         simulated recordings, made once and kept in a cache folder
``sets``           the sets of recordings that are scored, and what is learned from for each of them
``tokenizers``     trains the tokenizers that the sets need, and measures them
``energies``       energies of tracks, and any energy calibrated and cut as the pipeline cuts its own
``methods``        every way to cut a recording, in one registry
``predictions``    runs the methods over the sets, one file for each (set, setting, recording, method)
``scores``         holds the predictions against truth, beside chance, with intervals and paired differences
``descriptors``    ways to describe a primitive by numbers, for clustering
``clusters``       holds clusters of primitives against the kinds of primitive in truth
``report``         tables for the console and for Markdown
=================  ====================================================================================================

Whatever takes long lies in the work folder as soon as it is finished, under a key of all that it was made from: a run
that was killed goes on where it ended, and what has changed is made again.
"""

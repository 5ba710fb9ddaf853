"""Other ways to cut a recording without labels, to hold the project's own beside.

==================  ========================  =====================================  ==================================
module              what it sees              source                                 where it differs
==================  ========================  =====================================  ==================================
``flow``            dense optical flow        the paper's baseline, section 4.1.2    same cleaning and calibration as
                                                                                     every energy; with flow tracks
                                                                                     nearly the velocity energy again
``abd``             any features of samples:  Du et al., *Fast and Unsupervised      no number of actions is known:
                    flow histograms,          Action Boundary Detection for Action   merging ends at a similarity that
                    pictures, embeddings of   Segmentation*, CVPR 2022               the signal gives
                    tokens
``otas``            any features of samples   Li et al., *OTAS: Unsupervised         partial, global perception only:
                                              Boundary Detection for Object-Centric  no objects, and a linear predictor
                                              Temporal Action Segmentation*, WACV    for its Transformer
                                              2024
``variance``        codes of the tokenizer    a form of the energy that a summary    window and peaks are chosen here;
                                              of the paper describes                 their prominence is the signal's
``change``          codes of the tokenizer    an attempt of this project: where the  not the pipeline's, which learns
                                              kind of decoded motion changes         what boundaries look like
==================  ========================  =====================================  ==================================

Each gives one of two things: segments in seconds (``list[tuple[float, float]]``), or an energy, float64[n] with NaN
for null, which :func:`laps.baselines.cutting.cut_energy` calibrates and cuts exactly as the pipeline cuts its own.

The methods that look for boundaries (all but ``flow``) cut a recording completely: their segments touch, and a rest is
a segment like any other. Truth that leaves rests out counts these as wrong; only an energy can say that nothing is
done.

No threshold comes from the truth of what is scored: each setting is the publication's, is taken from the signal, or is
chosen once for all recordings, and its docstring says which.
"""

# Copyright (C) 2026 The anomalib-htdgm authors
# SPDX-License-Identifier: Apache-2.0

"""From a folder of photographs to verdicts, with reasons, and to a report; what the command and the page share.

The way of a photograph, and the files that it goes through:

1. :mod:`.preparing` and :mod:`.learning` get the model, and :mod:`.facts` what is to be known of it.
2. :mod:`.checking` finds the photograph's file, which it checks once only, and hands it to :mod:`.inspecting`.
3. There it is read, moved to where good ones lie (:mod:`.aligning`), and looked at for faults of its own, within the
   region that counts (:mod:`.regions`, :mod:`.photograph_faults`).
4. The model gives a score and a map. The score becomes a verdict (:mod:`.expectation`), the map pictures
   (:mod:`.evidence`, :mod:`.colours`), and the signals say why (:mod:`.signals`). All of it is a ``Finding``.
5. The finding goes into ``project.json`` (:mod:`.project`, :mod:`.state`), the pictures beside it (:mod:`.pictures`).
6. What was found, and what a person has decided, may move the threshold (:mod:`.thresholds`).
7. Table, report, page and endpoint show the state at the threshold of the moment (:mod:`.report`, :mod:`.sentences`,
   :mod:`anomalib_htdgm.demo`). :mod:`.exporting` takes the model elsewhere, where ``score.py`` does steps 3 and 4.

:mod:`.run` does all of it for the command, ``demo/part.py`` for the page.
"""

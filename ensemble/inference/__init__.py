"""Using what was trained: load a run, predict arrays and pictures, export the whole vote as one file.

    from ensemble import load_ensemble
    probs_NK = load_ensemble("runs/quickstart").predict_proba(images)

Importing this loads no torch; `trained` and `network`, which do, are imported when a run is loaded.
"""

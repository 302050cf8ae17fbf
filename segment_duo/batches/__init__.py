"""Many images beyond one process: shards, manifests, what a batch has come to, and the clusters that run it.

    shards      which images a task of several does         stopping   a signal ends the batch after the image in hand
    manifest    one task's file: what became of each image  history    what the files of earlier tasks say
    ledger      what one task asks and writes               summary    what all tasks have come to
    slurm       a job script for `sbatch`, and its tasks    cluster    windows of images on Dask workers

A line of a manifest is an image of a batch. Nothing here prints, and nothing lists a folder for every image.
"""

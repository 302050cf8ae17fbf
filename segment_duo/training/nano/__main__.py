"""``python -m segment_duo.training.nano``: see :mod:`segment_duo.training.nano.run`."""

from segment_duo.training.nano.run import main

if __name__ == "__main__":
    main()

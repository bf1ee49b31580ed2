"""Results -> tables, figures and pages. What lies here are the commands; their parts are in the rooms below."""
from vidmae.start.uncaught import end_with_a_sentence

end_with_a_sentence()

from vidmae.start.uncaught import end_with_a_sentence

end_with_a_sentence()

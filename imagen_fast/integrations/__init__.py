"""Other people's trainers with parts of ours: each module needs the package that it is named after."""

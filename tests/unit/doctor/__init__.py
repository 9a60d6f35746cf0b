"""The doctor's judgement: what each thing that is seen means."""

"""Where weights come from: tasks, training, distillation, pruning, export. Needs the extra ``train``: torch."""

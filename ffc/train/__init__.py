"""Where weights come from: tasks, distillation, importance, surgery and export. Needs the extra ``train``, torch among it."""

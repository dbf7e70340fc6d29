"""Where weights come from: tasks, distillation, importance, surgery, export. Needs the extra ``train``: torch."""

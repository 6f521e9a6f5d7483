"""`python -m launch.wandb_workspace ENTITY`: the short name, in this folder, of ensemble/launch/wandb_workspace.py."""

from ensemble.launch.wandb_workspace import main

if __name__ == "__main__":
    main()

"""What other trainers call keys of a recipe, for suggestions: TRL and transformers, axolotl, LLaMA-Factory, verl, vLLM.

They are never read as these keys: the same name may mean a slightly different quantity there.
"""

from collections.abc import Mapping
from typing import Final

_NAMES: Final = {
    "models.policy.model": "model model_name model_name_or_path base_model model_path policy pretrained",
    "models.policy.revision": "model_revision revision_of_model",
    "models.policy.trust_remote_code": "trust_remote_code",
    "models.policy.lora": "lora peft peft_config use_peft adapter use_lora",
    "models.policy.lora.rank": "r lora_r lora_rank",
    "models.policy.lora.alpha": "lora_alpha",
    "prompts": "dataset datasets dataset_name data data_files train_file train_files train_dataset prompt_file",
    "prompts.split": "dataset_split dataset_train_split",
    "prompts.columns.prompt": "prompt_key prompt_column",
    "prompts.system_prompt": "system default_system",
    "sampling.num_responses": "n num_generations num_return_sequences num_samples rollout_n best_of",
    "sampling.temperature": "temperature",
    "sampling.top_p": "top_p",
    "sampling.max_tokens": "max_new_tokens max_completion_length max_response_length response_length max_tokens",
    "engine.context_tokens": "max_length max_seq_length max_seq_len sequence_len cutoff_len max_model_len",
    "engine.kind": "backend infer_backend vllm use_vllm",
    "engine.gpu_memory_utilization": "gpu_memory_utilization vllm_gpu_memory_utilization",
    "engine.max_num_seqs": "max_num_seqs",
    "training.learning_rate": "lr learning_rate",
    "training.lr_scheduler": "lr_scheduler lr_scheduler_type scheduler",
    "training.warmup_ratio": "warmup_ratio",
    "training.warmup_steps": "warmup_steps lr_warmup_steps",
    "training.batch_size": "bs batch_size train_batch_size global_batch_size ppo_mini_batch_size "
    "per_device_train_batch_size",
    "training.micro_batch_size": "micro_batch_size micro_bs ppo_micro_batch_size_per_gpu",
    "training.micro_batch_tokens": "gradient_accumulation_steps accumulate_grad_batches",
    "training.num_epochs": "epochs num_epochs num_train_epochs ppo_epochs",
    "training.max_pairs": "max_samples",
    "training.beta": "beta dpo_beta pref_beta kl_coef rl_beta",
    "training.losses": "loss losses loss_type pref_loss",
    "training.optimizer": "optim optimizer",
    "training.weight_decay": "weight_decay",
    "training.max_grad_norm": "max_grad_norm grad_clip gradient_clipping",
    "training.gradient_checkpointing": "gradient_checkpointing",
    "training.save_every_steps": "save_steps",
    "training.weights_dtype": "bf16 fp16 torch_dtype",
    "engine.dtype": "dtype",
    "iterations.max": "steps max_steps num_iterations max_iterations total_epochs",
    "iterations.num_prompts_per_iteration": "num_prompts prompts_per_iteration",
    "evaluation.prompts": "eval_dataset test_dataset val_files eval_file",
    "evaluation.num_prompts": "val_size eval_size num_eval_prompts",
    "judging": "judge reward reward_funcs reward_model",
    "judging.by": "judge_model",
    "checkpoints.keep": "save_total_limit",
    "launch.num_processes": "num_processes n_gpus_per_node num_gpus nproc_per_node",
    "launch.sharding": "fsdp deepspeed",
    "monitor.max_hours": "max_hours time_limit",
    "output_dir": "output output_path save_dir default_local_dir",
    "name": "run_name experiment_name project_name",
    "seed": "random_seed",
}

KEYS: Final[Mapping[str, str]] = {alias: key for key, aliases in _NAMES.items() for alias in aliases.split()}
"""Keys of a recipe by the last part of what users write instead."""
